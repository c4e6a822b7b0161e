"""The recipes: one flow a file, read from top to bottom."""
