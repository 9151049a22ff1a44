"""A folder of images and masks of your own for semiseg."""
