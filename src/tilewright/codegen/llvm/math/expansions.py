"""placeholder"""
EXPANSIONS = {}
