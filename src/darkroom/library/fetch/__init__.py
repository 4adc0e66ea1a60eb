"""Models from the Hugging Face hub, from Civitai, or from any address: `pull` is the way in."""
