"""How a report looks, in light and in dark."""

CSS = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #5b6068; --paper: #fff; --edge: #d8dbe0; --box: #f5f6f8;
  --c0: #1f6fd1; --c1: #d9730d; --c2: #0f8a5f; --c3: #b3358c;
  --c4: #7a5cd6; --c5: #a08000; --c6: #c43c3c; --c7: #4a7a8c; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --soft: #9aa0a8; --paper: #17191c; --edge: #33373d; --box: #1f2226;
    --c0: #6aa9f7; --c1: #f2a35e; --c2: #4fc79a; --c3: #e58acb;
    --c4: #b09cf5; --c5: #d8bd4a; --c6: #f08a8a; --c7: #8fb9c9; } }
body { margin: 0 auto; max-width: 1100px; padding: 24px 16px 64px; background: var(--paper); color: var(--ink);
  font: 15px/1.45 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6em; margin: 0 0 4px; } h2 { font-size: 1.15em; margin: 32px 0 8px; }
h3 { font-size: 1em; margin: 20px 0 4px; } h4 { font-size: .9em; font-weight: 600; margin: 10px 0 6px; }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; margin: 12px 0; }
dt { color: var(--soft); } dd { margin: 0; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 16px; }
figure { margin: 0; } svg { width: 100%; height: auto; display: block; }
.charts figure { border: 1px solid var(--edge); border-radius: 6px; padding: 8px; }
figcaption { font-size: .85em; } .entry { color: var(--soft); margin-left: 12px; white-space: nowrap; }
.key { display: inline-block; width: 16px; border-top: 2px solid; margin-right: 5px; vertical-align: middle; }
.key.dashed { border-top-style: dashed; }
.line { fill: none; stroke: currentColor; stroke-width: 1.5; stroke-linejoin: round; }
.line.dashed { stroke-dasharray: 5 4; }
.band { fill: currentColor; opacity: .14; } circle { fill: currentColor; }
.grid { stroke: var(--edge); } .tick { fill: var(--soft); font-size: 11px; }
.c0 { color: var(--c0); } .c1 { color: var(--c1); } .c2 { color: var(--c2); } .c3 { color: var(--c3); }
.c4 { color: var(--c4); } .c5 { color: var(--c5); } .c6 { color: var(--c6); } .c7 { color: var(--c7); }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(110px, 1fr)); gap: 8px; }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(240px, 1fr)); gap: 12px; }
.pair { grid-template-columns: 1fr 1fr; }
img { width: 100%; height: auto; display: block; border-radius: 4px; }
.tiles figcaption { color: var(--soft); font-size: .75em; } .tile span { display: block; }
.finding { border-left: 4px solid var(--c1); border-radius: 4px;
  background: var(--box); padding: 8px 12px; margin: 8px 0; }
.problem { border-color: var(--c6); } .finding p { margin: 2px 0; }
table { border-collapse: collapse; font-size: .9em; } th, td { padding: 2px 12px 2px 0; text-align: left; }
.best td { font-weight: 600; color: var(--c2); }
pre { background: var(--box); padding: 12px; border-radius: 6px; white-space: pre-wrap; font-size: .8em; }
summary { cursor: pointer; } .note { color: var(--soft); }
"""
