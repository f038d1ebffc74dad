"""Where images come from: DICOMweb, C-GET, C-MOVE or a folder, behind one interface.

source.py       what every route must do: list what the PACS has, fetch a series
dicomweb.py     QIDO-RS and WADO-RS; cget.py, cmove.py: DIMSE; folder.py: a watched folder
association.py  an association with the PACS; web.py: a session; receiver.py: our own SCP
handshake.py    why there is no connection, in words
landing.py      what arrived is checked and gets its place on disk
queue.py        which series are to be fetched, and how far that is
pull.py         the whole story of a pull
"""
