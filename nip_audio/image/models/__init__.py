"""Networks that embed small images; a recipe's YAML file adds a linear head."""
