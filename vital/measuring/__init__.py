"""What real images do to a network: sorted rows, sums, rankings, and the targets of neurons."""
