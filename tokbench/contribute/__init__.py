"""Results of other machines: checked, and copied to where the repository keeps them."""
