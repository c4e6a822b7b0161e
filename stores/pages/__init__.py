"""An atlas as a folder of static pages that opens from disk or any bucket, without a server and without a network."""
