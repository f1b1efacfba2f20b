OR a.worker IN (SELECT {owner_name} FROM {work_table} AS w WHERE {running_here})
