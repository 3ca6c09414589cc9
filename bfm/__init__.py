"""The morphable face model: load, convert, evaluate, unwrap, place, render. Imports none of ours and no torch."""
