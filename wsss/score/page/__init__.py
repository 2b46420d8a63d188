"""The result page of a run: pictures of every stage, charts, and two runs side by side."""
