"""A folder of photos: what one looks at, reviews and hands on, without ground truth."""
