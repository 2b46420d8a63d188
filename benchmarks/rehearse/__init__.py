"""Every preset and every table of a paper, end to end at reduced size."""
