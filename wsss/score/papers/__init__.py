"""Tables of papers, beside what we measured."""
