"""Facial texture triplets (Sec. IV-A): photo, linear albedo and the photo's own albedo, to FTD shards."""
