"""Training a model together with the method in it: recipes, the objective, the images, and the loop."""
