"""Train models on corpora and publish them with a card; recipes are its clients."""
