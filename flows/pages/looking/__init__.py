"""What neurons see in photographs: looked for, as a value, and as a page."""
