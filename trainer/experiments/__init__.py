"""What is learnt under which settings, at equal cost: each experiment a command, resumable, with table and picture."""
