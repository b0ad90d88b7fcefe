"""The page of the served interface: a terminal that fills the window, from files of textual-serve alone."""

from html import escape

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>TITLE</title>
<link rel="stylesheet" href="static/css/xterm.css">
<style nonce="NONCE">
html, body { height: 100%; margin: 0; overflow: hidden; background: #0c181f; }
#terminal { position: absolute; inset: 0; overflow: hidden; }
.xterm .xterm-viewport { overflow: hidden !important; }
#closed { display: none; position: absolute; inset: 0; z-index: 10; color: #fff; font: 16px monospace;
  background: #0c181f; flex-direction: column; align-items: center; justify-content: center; gap: 16px; }
body.-closed #closed { display: flex; }
</style>
<script src="static/js/textual.js"></script>
</head>
<body>
<div id="terminal" class="textual-terminal" data-session-websocket-url="" data-font-size="16"></div>
<div id="closed"><div>Session ended. Your edits are stored.</div><button id="again">Open again</button></div>
<script nonce="NONCE">
let name = sessionStorage.getItem("curator");
if (!name) {
  name = Array.from(crypto.getRandomValues(new Uint8Array(16)), (n) => n.toString(16).padStart(2, "0")).join("");
  sessionStorage.setItem("curator", name);
}
const place = new URL("ws/" + name, location.href);
place.protocol = place.protocol === "https:" ? "wss:" : "ws:";
place.search = "";
document.getElementById("terminal").dataset.sessionWebsocketUrl = place.href;
document.getElementById("again").addEventListener("click", () => location.reload());
</script>
</body>
</html>
"""


def page(title: str, nonce: str) -> str:
    """Return the HTML of the page.

    Args:
        title: Title of the window. The text may be foreign.
        nonce: Random text that allows the scripts and styles of the page, and no others.
    """
    return _PAGE.replace("TITLE", escape(title)).replace("NONCE", nonce)


def headers(nonce: str) -> dict[str, str]:
    """Return the headers of the page: no foreign content, no frames, and no URL for other sites."""
    rules = [
        "default-src 'none'",
        f"script-src 'self' 'nonce-{nonce}'",
        # xterm.js sets styles by script.
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    return {"Content-Security-Policy": "; ".join(rules), "Cache-Control": "no-store"}
