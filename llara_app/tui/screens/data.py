from llara_app.tui.screens.room import Room


class Data(Room):
    room = "data"
    BINDINGS = []
