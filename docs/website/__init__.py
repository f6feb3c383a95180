"""The static site: page generators, and the program that builds the site from them (`make site`)."""
