"""Study of speaker verification under attack, and of what purifiers recover."""
