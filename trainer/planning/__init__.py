"""What a run will need before it runs: memory of every phase, cost, and which settings fit a card."""
