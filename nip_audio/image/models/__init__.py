"""Networks for small pictures: embeddings out, a linear head beside them in a recipe's YAML."""
