"""What a statistics store keeps of neurons: their best images and where these lie, and a sample of images."""
