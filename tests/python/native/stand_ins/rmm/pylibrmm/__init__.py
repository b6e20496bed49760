"""rmm.pylibrmm"""
