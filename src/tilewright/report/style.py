"""How the page looks, on light and on dark screens, and on paper."""

from __future__ import annotations

CSS = """
:root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--dim:#57606a;--grid:#d8dee4;--box:#f6f8fa;--win:#c2410c;--l:42%;--seg:68%}
@media(prefers-color-scheme:dark){:root{--bg:#14181d;--fg:#e6edf3;--dim:#9aa5b1;--grid:#30363d;--box:#1c2128;--win:#fb923c;--l:66%;--seg:38%}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem 1.5rem 4rem;max-width:76rem;background:var(--bg);color:var(--fg);font:15px/1.5 system-ui,sans-serif}
h1{font-size:1.6rem;margin:.5rem 0}h2{font-size:1.25rem;margin:2.2rem 0 .6rem;border-bottom:1px solid var(--grid)}
a{color:inherit}nav a{margin-right:1rem}.note,figcaption,caption{color:var(--dim);font-size:.88rem}
.wide{overflow-x:auto;margin:.6rem 0}table{border-collapse:collapse;font-size:.88rem}caption{text-align:left;padding:.2rem 0}
th,td{padding:.2rem .7rem .2rem 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--grid);overflow-wrap:anywhere}
td{min-width:3rem}
th{white-space:nowrap}.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
details{margin:.4rem 0}summary{cursor:pointer}.task{border:1px solid var(--grid);border-radius:6px;padding:.2rem .8rem;margin:.5rem 0}
pre{background:var(--box);padding:.6rem;border-radius:6px;overflow:auto;max-height:28rem;font-size:.82rem}
.charts{display:flex;flex-wrap:wrap;gap:1rem}figure{margin:0;flex:1 1 24rem;max-width:46rem}
svg{max-width:100%;height:auto;font:11px system-ui,sans-serif;fill:var(--fg)}figure svg,.bars{width:100%}
.axes line{stroke:var(--grid)}.axes text{fill:var(--dim)}
.line{fill:none;stroke:var(--c,var(--fg));stroke-width:1.8}.dots{fill:none;stroke:var(--c,var(--fg));stroke-width:3.2;stroke-linecap:round;opacity:.45}
.fail{--c:var(--dim)}.default{--c:var(--fg)}.line.default{stroke-dasharray:6 4}.line.diagonal,.line.gain{stroke:var(--dim);stroke-width:1}
.line.roof{stroke:var(--dim);stroke-width:2.2}.ring{fill:var(--bg);stroke:var(--fg);stroke-width:1.8}.ring.winner{fill:var(--win);stroke:var(--bg)}
.c0{--c:hsl(210 80% var(--l))}.c1{--c:hsl(28 90% var(--l));stroke-dasharray:7 2}.c2{--c:hsl(150 65% var(--l));stroke-dasharray:3 2}
.c3{--c:hsl(320 60% var(--l));stroke-dasharray:9 3 2 3}.c4{--c:hsl(265 60% var(--l));stroke-dasharray:5 5}
.c5{--c:hsl(55 80% var(--l));stroke-dasharray:2 4}
.dots{stroke-dasharray:none}.legend{display:flex;flex-wrap:wrap;gap:.2rem .5rem;align-items:center}.legend span{margin-right:.8rem}
.segment{fill:hsl(var(--h) 55% var(--seg));stroke:var(--bg)}.inside{pointer-events:none}
.plan{overflow:auto;max-height:80vh;border:1px solid var(--grid);border-radius:6px}.plan svg{max-width:none}
.group{fill:hsl(var(--h) 45% var(--seg)/.28);stroke:hsl(var(--h) 55% var(--l))}.op{fill:var(--bg);stroke:var(--grid)}
.edge{fill:none;stroke:var(--dim);opacity:.65}.plan .small{fill:var(--dim);font-size:10px}
@media print{.plan{max-height:none}}
"""
