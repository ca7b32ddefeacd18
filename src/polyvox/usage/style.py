"""How the page of usage looks: light or dark as the reader's system is, readable on paper and by keyboard alone."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --back: #fbfbf9; --front: #1c1e21; --soft: #5c636b; --line: #dcdfe3; --card:
  #fff; --warn: #9a4b00; --c0: #3b6fd4; --c1: #d9812b; --c2: #2f9e73; --c3: #b4529b; --c4: #8a7a1f; --c5:
  #4aa3c2; --c6: #c4483d; --c7: #8b8f96; }
@media (prefers-color-scheme: dark) { :root { --back: #15171a; --front: #e7e9ec; --soft: #9aa2ab; --line:
  #33383e; --card: #1c1f23; --warn: #f0a860; --c0: #7ea6f4; --c1: #f0a75c; --c2: #63c79e; --c3: #d98ac5; --c4:
  #cbb955; --c5: #7fcbe4; --c6: #ef847a; --c7: #a9aeb5; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem; max-width: 62rem; background: var(--back); color: var(--front); font:
  15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0; }
h2 { font-size: 1.1rem; margin: 0 0 .5rem; }
p { margin: .25rem 0; }
.soft { color: var(--soft); }
.warn { color: var(--warn); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 1rem; margin:
  1rem 0; }
.skip { position: absolute; left: -99rem; }
.skip:focus { left: 1rem; top: 1rem; background: var(--card); padding: .5rem; }
.totals { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: .75rem; margin: 0;
  }
.totals div { border-left: 3px solid var(--c0); padding-left: .6rem; }
.totals dt { color: var(--soft); font-size: .85rem; }
.totals dd { margin: 0; font-size: 1.25rem; }
.plot { width: 100%; height: auto; display: block; }
.grid { stroke: var(--line); }
.tick { fill: var(--soft); font-size: 11px; }
.legend { list-style: none; margin: .25rem 0; padding: 0; display: flex; flex-wrap: wrap; gap: .25rem 1rem;
  font-size: .85rem; }
.legend li { max-width: 20rem; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.key { width: .7rem; height: .7rem; margin-right: .35rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap;
  font-variant-numeric: tabular-nums; }
th { font-weight: 600; }
thead th { color: var(--soft); }
.name { text-align: left; max-width: 24rem; overflow: hidden; text-overflow: ellipsis; }
tfoot th, tfoot td { border-top: 2px solid var(--line); border-bottom: 0; font-weight: 600; }
.choice { margin-right: .3rem; }
.choice + label { margin-right: 1rem; cursor: pointer; }
.panel { display: none; margin-top: .5rem; }
#by-0:checked ~ .panel-0, #by-1:checked ~ .panel-1, #by-2:checked ~ .panel-2 { display: block; }
:focus-visible { outline: 2px solid var(--c0); outline-offset: 2px; }
summary { cursor: pointer; color: var(--soft); font-size: .9rem; }
@media print { .panel { display: block; } .choice, .choice + label, .skip { display: none; } }
""" + "".join(
    f".s{number} {{ fill: var(--c{number}); }}\n"
    f".l{number} {{ fill: none; stroke: var(--c{number}); stroke-width: 2; }}\n"
    for number in range(8)
)
