from llara_app.tui.screens.room import Room


class Bundles(Room):
    room = "bundles"
    BINDINGS = []
