"""What comes from elsewhere, by https: files by address, and repositories of the Hugging Face hub."""
