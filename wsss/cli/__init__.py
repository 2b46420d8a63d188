"""`wsss <stage> …`: the one door that rules and people use."""
