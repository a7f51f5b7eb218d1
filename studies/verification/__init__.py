"""Speaker verification under attack, and what purifiers recover."""
