"""Study of attacks on the shipped speaker models, and of defences against them."""
