"""What all stores share: declared arrays, fingerprints, blocks and leases."""
