"""The mark in the file of a drawing which says that a model made it: IPTC's digital source type, as XMP metadata.

The pixels and all other metadata (C2PA's, say) stay as they are. Most programs drop it when they save the image.
"""

import struct
import zlib

SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
XMP = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:CreatorTool="LTGC"
 xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" Iptc4xmpExt:DigitalSourceType="{SOURCE}"/>
</rdf:RDF></x:xmpmeta><?xpacket end="w"?>""".encode()
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
PNG_HEADER = len(PNG) + 25  # the signature and the chunk IHDR, which has to come first
JPEG_KEYWORD = b"http://ns.adobe.com/xap/1.0/\0"


def marked(image: bytes) -> bytes:
    """The file with the mark. One that has it, and one that is neither PNG nor JPEG, is returned as it is."""
    if SOURCE.encode() in image:
        return image
    if image.startswith(PNG):
        chunk = b"iTXt" + b"XML:com.adobe.xmp\0\0\0\0\0" + XMP
        length, checksum = struct.pack(">I", len(chunk) - 4), struct.pack(">I", zlib.crc32(chunk))
        return image[:PNG_HEADER] + length + chunk + checksum + image[PNG_HEADER:]
    if image.startswith(JPEG):
        start = len(JPEG)
        if image[start : start + 2] == b"\xff\xe0":  # JFIF's own segment has to come first
            start += 2 + int.from_bytes(image[start + 2 : start + 4])
        segment = JPEG_KEYWORD + XMP
        return image[:start] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + image[start:]
    return image
