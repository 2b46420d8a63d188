"""Is a data set complete and readable?"""
