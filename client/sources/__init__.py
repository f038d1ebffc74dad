"""Where images come from: DICOMweb, C-GET, C-MOVE or a folder, behind one interface.

source.py says what every route must do: list what the PACS has, fetch a series. The routes are
dicomweb.py, cget.py, cmove.py and folder.py; association.py, web.py and receiver.py open what they
need, and handshake.py says in words why that failed. landing.py checks what arrives and gives it
its place. queue.py knows how far a pull is, and pull.py is its whole story.
"""
