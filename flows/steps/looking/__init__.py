"""What neurons see in photographs: looked for, and as a value."""
