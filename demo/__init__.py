"""The browser demo: pictures over the same headless core as the command line and the TUI."""

from demo.startup import prepare_gradio

prepare_gradio()
