"""Fine-tuning with a local judge as the reward, and what it was good for."""
