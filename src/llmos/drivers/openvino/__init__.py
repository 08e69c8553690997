"""OpenVINO models through OpenVINO GenAI's pipeline of continuous batching."""
