"""Tables of papers: published and measured numbers side by side."""
