"""Facial texture triplets (FTD): photo crop, unwrapped albedo, sampled texture. Not written yet."""
