"""What the pages' scripts are told, in parts that a page reads when it needs them."""
