"""What a run left in its folder, as pictures, words and one HTML page."""
