"""How far a picture can be trusted, and what is measured for it alone: how its own network treats it, and whether that
leads to one picture whatever it begins as."""
