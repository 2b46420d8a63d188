"""From class scores to labels: background rule, dense CRF, ignore band."""
