"""The paper's figures, drawn from trained runs: one family a module."""
