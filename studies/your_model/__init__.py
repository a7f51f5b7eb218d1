"""A model of others: adopted, calibrated, attacked, purified and measured."""
