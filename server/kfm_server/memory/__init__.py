"""What outlives a turn: knowledge for retrieval, facts and preferences of users."""
