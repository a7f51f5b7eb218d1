def summarise(*a): return {}
