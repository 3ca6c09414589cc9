"""The paper's measurements, one protocol a module; `dualface evaluate` runs them."""
